"""Networks of StreamingT2V; `build` is the door to them, and nothing outside this folder knows flax."""
