"""A preset tried out: its whole road once, with random frozen parts, and what it costs."""
