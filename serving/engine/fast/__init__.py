"""CTranslate2 as an engine of the service: conversion, batches, what it cannot do. (Lesson 08.)"""
