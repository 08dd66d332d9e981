#!/bin/sh
# CI: goes on only if the evidence beside a run holds, is young and says GO. Needs no hardware and no network.
#   RUN        the run document, with its .raw folder, .intoto.json and .intoto.json.sig beside it
#   SIGNERS    who may sign: from this repository, not from where the run came from
#   PROFILE    what the node is meant for                                           NONCE   this pipeline's own word, if it
#   MAX_AGE    older evidence does not count; default 26h                                   asked for the measurement
set -eu
exec "${BENCH:-bench}" verify "$RUN" --allowed-signers "$SIGNERS" --only-go --profile "$PROFILE" \
    --max-age "${MAX_AGE:-26h}" ${NONCE:+--nonce "$NONCE"}
