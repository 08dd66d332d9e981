"""Pure judgement: numbers in, decision out. No clock, no file, no process, no network."""
