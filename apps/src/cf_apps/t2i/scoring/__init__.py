"""Numbers on pictures: GenEval, CLIP score, the search for the scale of guidance."""
