"""The shape of a weight as a matrix, with how many of its rows are stored once."""

from __future__ import annotations


class Matrix(tuple[int, int]):
    """Rows and columns of a weight whose `alike` rows are one common row: a file holds it once, and a bit for each row.

    It is a pair (rows, columns) wherever only these matter.
    """

    alike: int

    def __new__(cls, rows: int, columns: int, alike: int) -> Matrix:
        """Make one.

        Args:
            rows: all of them.
            columns: of each.
            alike: rows that are one common row, at least two.
        """
        made = super().__new__(cls, (rows, columns))
        made.alike = alike
        return made

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.alike == alike_rows(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((*self, self.alike))

    def __str__(self) -> str:
        return f"{self[0]}x{self[1]}/{self.alike}"

    @property
    def stored(self) -> tuple[int, int]:
        """The shape of the matrix that a file holds: the rows that are unlike, in order, then the common one."""
        return self[0] - self.alike + 1, self[1]


def matrix_of(rows: int, columns: int, alike: int = 0) -> tuple[int, int]:
    """The shape of a weight, as a plain pair if no rows are alike."""
    return Matrix(rows, columns, alike) if alike else (rows, columns)


def alike_rows(matrix: object) -> int:
    """How many rows of a matrix of this shape are one common row; zero if none are."""
    return matrix.alike if isinstance(matrix, Matrix) else 0


def all_rows(matrix: tuple[int, int]) -> tuple[int, int]:
    """The same shape with every row stored by itself."""
    return matrix[0], matrix[1]
