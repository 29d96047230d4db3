"""Ready-made tasks: CIFAR residual networks, handwritten digits, a noisy quadratic."""
