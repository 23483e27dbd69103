"""The stages of a cycle and the runner that makes them safe to retry.

`table` lists the stages, `runner` runs one of them. What a stage needs done is done by functions of
other rooms; its file says in which order.
"""
