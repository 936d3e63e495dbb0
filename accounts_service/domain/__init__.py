"""Accounts, and the rules that hold for them."""
