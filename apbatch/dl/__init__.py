"""CNN: data, models, collective, training, blind analysis, evaluation, report."""
