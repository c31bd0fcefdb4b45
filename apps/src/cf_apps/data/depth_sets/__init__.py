"""Depth data in the layouts people have it in: public sets with their split files, and folders of one's own."""
