"""Accounts and the money in them."""
