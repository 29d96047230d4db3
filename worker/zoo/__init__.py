"""Ready-made tasks: residual networks on CIFAR, language models, handwritten digits, a noisy quadratic."""
