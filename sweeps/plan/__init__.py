"""What a sweep file asks for: parameters, distributions, metric, search. Knows no run, queue or server."""
