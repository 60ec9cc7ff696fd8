from dataclasses import dataclass
@dataclass
class SweepFigures: pass
def measure_sweep(): pass
