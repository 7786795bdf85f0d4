"""CNN: data, models, collective, training, blind analysis, evaluation, report."""

import os

# TensorFlow, which reads this when it is imported, computes by oneDNN of its own accord only where the processor has
# AVX-512. With AVX2 alone a step of training takes 0.6 times as long, too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
