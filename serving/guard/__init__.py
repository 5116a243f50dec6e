"""What an operator expects of a service: metrics, logs, keys, limits, a cache. (Lesson 09.)"""
