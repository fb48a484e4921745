nothing is known about another source that has the same files, links and inputs
nothing is kept for other sources, for something is built from this one by its path
