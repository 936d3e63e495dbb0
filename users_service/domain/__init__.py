"""Users and tasks, and the rules that hold for them."""
