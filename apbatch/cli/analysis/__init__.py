"""Commands that compute: images and their parameters, simulation, networks, jobs, benchmarks."""
