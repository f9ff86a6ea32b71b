"""The Trainer's work without a window: people, synthesis, training, export."""
