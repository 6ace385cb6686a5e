"""A study in one file: its table, its models, what is held out, and the report of what came out.

``file`` says which keys there are, ``template`` writes a commented file, ``data`` reads the table, ``run`` does the work step by
step, ``results`` holds what came out, and ``chapters`` tell it.
"""
