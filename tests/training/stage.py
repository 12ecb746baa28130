"""A training stage at its tiny size, without the run around it."""

import jax
import numpy as np
from configs_of import stage_config

from st2v_jax import sharding, trees
from st2v_jax.data import caption_tokens
from st2v_jax.models import build
from st2v_jax.training import loop, state, step


class Stage:
    """The objective of a stage, ready to step on some devices."""

    def __init__(self, name, params, devices=1):
        self.config = stage_config(name)
        self.mesh = sharding.make_mesh({'data': -1}, jax.devices()[:devices])
        self.model = build.ModelConfig.from_dict(self.config.model.to_dict())
        tokenizer = caption_tokens.tokenizer_for(self.model.text.vocab_size)
        objective = loop.OBJECTIVES[self.config.objective]
        self.objective = objective(self.config, self.model, params, tokenizer, self.mesh, jax.random.key(0))
        trained, frozen = state.split(self.objective.params, self.objective.trained)
        self.optimizer = step.make_optimizer(**self.config.optimizer)
        everywhere = sharding.replicated(self.mesh)
        self.state = jax.device_put(state.create(trained, self.optimizer), everywhere)
        self.frozen = jax.device_put(frozen, everywhere)
        rate = lambda _: self.config.schedule.peak
        one = step.make_step(self.objective.draw, self.objective.loss, self.optimizer, rate=rate, ema_decay=0.9)
        self.step = jax.jit(one, compiler_options=self.config.compiler_options.to_dict())

    def run(self, steps):
        """The losses of a number of steps."""
        losses, key, data = [], jax.random.key(0), self.objective.data
        for _ in range(steps):
            self.state, metrics = self.step(self.state, self.frozen, data, np.float32(0), key)
            losses.append(float(metrics['loss']))
        return losses

    def finish(self):
        """(networks to save, ModelConfig) after the steps so far."""
        return self.objective.finish(trees.join(self.state.params, self.frozen), self.model)


def random_encoders():
    """Random weights of the networks that the denoising stages do not train."""
    model = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
    doors = {'vae': build.vae, 'text': build.text_tower, 'image': build.image_tower}
    return {name: build.init(jax.random.key(1), door(model)) for name, door in doors.items()}
