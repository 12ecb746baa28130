"""The networks of StreamingT2V. `build` turns them into pure functions; nothing outside this folder uses flax."""
