"""The refinement stage: a long video drawn once more at a higher resolution, in overlapping chunks."""
