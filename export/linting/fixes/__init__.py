"""Exact rewrites: one file a family of operators, `table.py` says which serves which operator.

A fix is a function of a `Bench`: it leaves new nodes there and says what it
did, or gives None where the node may stay as it is, or raises NoExactRewrite.
It decides by the opset that the copy gets and by what the target's parser
knows, never by values that only a run would show.
"""
