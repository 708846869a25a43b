"""The commands of each dialect, as a broker handles them.

dependencies: the parts of the machine that the command handlers use.
events: EVENT, SUBSCRIBE, UNSUBSCRIBE and named sessions of MDP/0.3.
legacy: the commands of MDP/0.1, MDP/0.2 and Delphi.
mdp03: the commands of MDP/0.3.
"""
