"""Many processes as one: who is there, which rows are whose, how the work is shared, and how all end together."""
