"""Blind analysis: sealed test sets and their ledger."""
