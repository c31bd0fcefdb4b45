"""GenEval: do the objects of the prompt stand in the picture, as many, coloured and placed as it says?"""
