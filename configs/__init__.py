"""One file a stage: what `st2v train --config` takes, by name or by path. Installed as st2v_jax.configs."""
