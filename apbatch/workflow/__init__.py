"""YAML job descriptions: model, planner, runner."""
