"""Declared checks: what can only be said, held to an owner, evidence and an expiry."""
