"""Durable timers: what is done when a time has come, once, also after hours of being down."""
