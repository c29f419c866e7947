"""The components that ESPnet sees: task, models, preprocessor, sampler, trainer."""
