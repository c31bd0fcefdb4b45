"""CrossFlow's tables and figures: what a table is, what is trained for it, how its claims are judged and shown."""
