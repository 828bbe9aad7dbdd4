"""What a kernel takes of a device."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class KernelReport:
    """What a batch of an objective takes of a device.

    Attributes
    ----------
    capability : tuple of int
        The compute capability that it was compiled for.
    registers : int
        Registers of a thread, of which a multiprocessor has 65536.
    local_bytes : int
        Local memory of a thread, in bytes: its arrays, and what was spilled.
    spilled_bytes : int
        Bytes of registers that are stored and loaded because there are too few.
    float64_instructions : int
        Instructions of the objective in double precision.
    literals : str
        For float32, the numbers in the objective that may be why it computes in double precision, with their lines.
    """

    capability: tuple[int, int]
    registers: int
    local_bytes: int
    spilled_bytes: int
    float64_instructions: int
    literals: str = ""

    def __str__(self) -> str:
        major, minor = self.capability
        text = (
            f"compiled for compute capability {major}.{minor}: {self.registers} registers and {self.local_bytes} bytes "
            f"of local memory a thread, {self.spilled_bytes} bytes spilled\n"
            f"{self.float64_instructions} instructions of the objective are in double precision"
        )
        return f"{text}, which may be because of {self.literals}" if self.literals else text
