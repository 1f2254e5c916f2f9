"""Test protocols, run for real against a jar of their own: `brainjar drill` (docs/drill.md).

Each is a function of a `proving.Jar` and a `report.Report`: it does something to the jar, looks at what follows, and claims. A claim
passes or fails by what was measured, which the report says beside what was wanted.
"""
