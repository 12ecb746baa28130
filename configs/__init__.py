"""The configs of the training stages, one file each, for `st2v train --config`. Installed as st2v_jax.configs."""
