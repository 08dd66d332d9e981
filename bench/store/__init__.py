"""Stored runs: written atomically, never edited, read with suspicion."""
