"""Commands: what is typed, read, printed and refused.

``main`` has the commands themselves, ``answers`` those that answer a question; ``reading`` the options of how a table is read,
``words`` the library's messages without Python.
"""
