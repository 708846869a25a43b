"""Handlers that run in processes of their own (`run="process"`).

pool: starts, replaces and ends the processes, and runs requests in them
child: the program of one handler process
pipe: the messages between both
target: how a process finds a handler's function
"""
