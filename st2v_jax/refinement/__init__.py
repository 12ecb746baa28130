"""The refinement stage: a long video generated again at a higher resolution, in overlapping chunks."""
