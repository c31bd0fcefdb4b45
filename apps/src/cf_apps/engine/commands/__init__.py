"""The commands that every task has, and what a task gives to get them."""
