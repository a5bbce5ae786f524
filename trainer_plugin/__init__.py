"""Plan to training steps in the stock Hugging Face Trainer; `trainer_plugin.attach` is where to begin."""
