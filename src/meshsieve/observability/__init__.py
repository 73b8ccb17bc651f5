"""What observed traffic amounts to: flow records for collectors, hit counts, metrics, graphs, talkers, timelines."""
