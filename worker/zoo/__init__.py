"""Ready-made tasks: CIFAR residual networks, LSTM language models, handwritten digits, a noisy quadratic."""
