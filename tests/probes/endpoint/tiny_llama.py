"""llama.cpp's own OpenAI server over half a megabyte of random weights: ``python -m ...tiny_llama FILE`` writes the
file, serves it on a free port of loopback, and says where. Nobody here wrote the server.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

_VOCABULARY, _WIDTH, _HEADS, _LAYERS, _HIDDEN, _CONTEXT = 288, 64, 4, 2, 128, 2048
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def write(file: Path) -> None:
    """A llama of two layers whose weights are random; its vocabulary is bytes and a few words."""
    import gguf
    import numpy as np

    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    tokens += [f"w{number}".encode() for number in range(_VOCABULARY - len(tokens))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * (_VOCABULARY - 259)]
    to = gguf.GGUFWriter(str(file), "llama")
    to.add_context_length(_CONTEXT)
    to.add_embedding_length(_WIDTH)
    to.add_block_count(_LAYERS)
    to.add_feed_forward_length(_HIDDEN)
    to.add_head_count(_HEADS)
    to.add_head_count_kv(_HEADS)
    to.add_layer_norm_rms_eps(1e-5)
    to.add_rope_dimension_count(_WIDTH // _HEADS)
    to.add_vocab_size(_VOCABULARY)
    to.add_tokenizer_model("llama")
    to.add_token_list(tokens)
    to.add_token_scores([0.0] * _VOCABULARY)
    to.add_token_types(kinds)
    to.add_bos_token_id(1)
    to.add_eos_token_id(2)
    to.add_unk_token_id(0)
    to.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    draw = np.random.default_rng(1)
    square, up, down = (_WIDTH, _WIDTH), (_HIDDEN, _WIDTH), (_WIDTH, _HIDDEN)
    shapes = {"token_embd": (_VOCABULARY, _WIDTH), "output": (_VOCABULARY, _WIDTH)}
    for layer in range(_LAYERS):
        named = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
        named |= {"ffn_gate": up, "ffn_up": up, "ffn_down": down}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in named.items()}
    norms = ["output_norm", *(f"blk.{layer}.{name}_norm" for layer in range(_LAYERS) for name in ("attn", "ffn"))]
    for name, shape in shapes.items():
        to.add_tensor(f"{name}.weight", draw.normal(0.0, 0.05, shape).astype(np.float32))
    for name in norms:
        to.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()


def serve(file: Path) -> None:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    for threads in (settings.cpuparams, settings.cpuparams_batch):  # more of them would wait for each other, awake
        threads.n_threads = 1
    settings.n_ctx, settings.n_parallel, settings.warmup = 8 * 512, 8, True
    server = xllamacpp.Server(settings)
    print(f"llama on {server.listening_address.rpartition(':')[2]}", flush=True)
    signal.pause()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    serve(Path(sys.argv[1]))
