"""Recipes: all that decides how a model is trained, and those that users train.

These are in `recipes.json`, as far as they differ from the defaults; those of shipped models and of
their teachers are in `experiments/recipes/`.
"""

import dataclasses
import json
import numbers
import os
from pathlib import Path
from typing import Any

from ferlib import files, models
from ferlib.batches import Augmentation


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides how a model is trained; saved beside every model as `recipe.json`.

    Args:
        model: A name that `models.build` knows.
        options: What its builder takes.
        init: A trained model of the same form (a `.keras` file or a shipped name) whose weights
            are the first; "" begins with the builder's.
        epochs: Passes over the training pictures.
        batch_size: Pictures in a batch.
        optimizer: "adam", "adamw" or "sgd" (Nesterov, momentum 0.9).
        learning_rate: The highest learning rate.
        schedule: "cosine" (down to zero, Loshchilov and Hutter 2016, arXiv:1608.03983) or
            "constant".
        warmup_epochs: Epochs over which a cosine schedule first rises, linearly.
        weight_decay: Decoupled weight decay; biases and normalisation are left out.
        label_smoothing: Share of each target that is spread over all labels; what teachers answer
            is not spread.
        augmentation: How training pictures are changed; None changes nothing.
        mixup: Alpha of mixup; 0 for none.
        ema: Momentum of the moving average of the weights, a step; 0 for none. The average is
            what is validated and saved.
        ferplus_weight: Share of FER+'s votes in the targets.
        teachers: Trained models (`.keras` files or shipped names) whose mean answer to the very
            picture that is learned from, changed and blended, is part of the target (distillation,
            Hinton et al. 2015, arXiv:1503.02531; why the same picture: Beyer et al. 2021,
            arXiv:2106.05237).
        teacher_weight: Their share of the target.
        teacher_flip: Whether teachers also answer the mirror image, and the mean of both counts:
            a better teacher, at twice the time.
        class_weights: Whether rare labels weigh more.
        seed: Seed of weights, order, augmentation, mixup and dropout.
        precision: Keras's dtype policy in training, such as "mixed_bfloat16". What is saved
            computes in float32.
    """

    model: str = "vgg"
    options: dict = dataclasses.field(default_factory=dict)
    init: str = ""
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    augmentation: Augmentation | None = Augmentation()
    mixup: float = 0.0
    ema: float = 0.0
    ferplus_weight: float = 0.0
    teachers: tuple[str, ...] = ()
    teacher_weight: float = 0.5
    teacher_flip: bool = False
    class_weights: bool = False
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self):
        if isinstance(self.augmentation, dict):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        teachers = [self.teachers] if isinstance(self.teachers, str) else self.teachers
        object.__setattr__(self, "teachers", tuple(teachers))
        allowed = {
            "model": (self.model in models.BUILDERS, f"one of {', '.join(models.BUILDERS)}"),
            "options": (isinstance(self.options, dict), "values by name"),
            "augmentation": (isinstance(self.augmentation, Augmentation | None), "values by name"),
            "optimizer": (self.optimizer in ("adam", "adamw", "sgd"), "adam, adamw or sgd"),
            "schedule": (self.schedule in ("cosine", "constant"), "cosine or constant"),
            "epochs": (_whole(self.epochs), "a whole number, 1 or more"),
            "batch_size": (_whole(self.batch_size), "a whole number, 1 or more"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 or more, under 1"),
            "ema": (0 <= self.ema < 1, "0 or more, under 1"),
            "ferplus_weight": (0 <= self.ferplus_weight <= 1, "0 to 1"),
            "teacher_weight": (0 <= self.teacher_weight <= 1, "0 to 1"),
        }
        for name, (fits, what) in allowed.items():
            if not fits:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}; it must be {what}.")

    def replace(self, **changes: Any) -> "Recipe":
        """Gives this recipe with some fields changed.

        Example:
            >>> RECIPES["compact"].replace(epochs=2).epochs
            2
        """
        return dataclasses.replace(self, **changes)

    def changed(self, texts: dict[str, str]) -> "Recipe":
        """Gives this recipe with fields changed as a command line says it.

        Args:
            texts: New values by field, as JSON; where the field is text, as they are. Of options
                and augmentation only what is named changes.

        Raises:
            ValueError: If a recipe has no such field, or the field no such value.

        Example:
            >>> RECIPES["compact"].changed({"epochs": "20"}).epochs
            20
        """
        fields = dataclasses.asdict(self)
        unknown = set(texts) - set(fields)
        if unknown:
            raise ValueError(
                f"No recipe has {', '.join(sorted(unknown))}; fields are {', '.join(fields)}."
            )
        recipe = self
        for name, text in texts.items():
            old = fields[name]
            try:
                value = text if isinstance(old, str) else json.loads(text)
                if isinstance(old, dict) and isinstance(value, dict):
                    value = old | value
                recipe = recipe.replace(**{name: value})
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{name}={text} does not fit a recipe: no JSON, such as {json.dumps(old)}."
                ) from error
            except (TypeError, ValueError) as error:
                why = str(error).rstrip(".")
                raise ValueError(f"{name}={text} does not fit a recipe: {why}.") from error
        return recipe

    def to_json(self, path: str | Path) -> None:
        """Writes the recipe to a file; models that it builds on are named from its folder."""
        folder = Path(path).parent
        fields = dataclasses.asdict(self)
        fields["init"] = _from(folder, self.init)
        fields["teachers"] = [_from(folder, teacher) for teacher in self.teachers]
        files.write_json(path, fields)

    @classmethod
    def from_json(cls, path: str | Path) -> "Recipe":
        """Reads a recipe from a file.

        Args:
            path: The file. `init` and `teachers` in it are files relative to its folder, or names
                of shipped models, which have no ending.

        Raises:
            ValueError: If the file is no recipe; names the file and the field.
        """
        folder = Path(path).parent
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
            if unknown:
                raise ValueError(f"no recipe has {', '.join(sorted(unknown))}")
            recipe = cls(**fields)
            teachers = tuple(_in(folder, teacher) for teacher in recipe.teachers)
            return recipe.replace(init=_in(folder, recipe.init), teachers=teachers)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not a recipe: {error}") from error


def _in(folder: Path, model: str):
    """Gives a model's file in a folder; a shipped name, which has no ending, as it is."""
    return os.path.normpath(folder / model) if Path(model).suffix else model


def _from(folder: Path, model: str):
    """Gives a model's file as it is named from a folder; a shipped name as it is."""
    if not Path(model).suffix:
        return model
    try:
        return Path(os.path.relpath(model, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(Path(model).resolve())


def _whole(number: Any):
    return isinstance(number, numbers.Integral) and number >= 1


_SHIPPED = json.loads(Path(__file__).with_name("recipes.json").read_text(encoding="utf-8"))
RECIPES = {name: Recipe(**fields) for name, fields in _SHIPPED.items()}
"""The recipes that users train, by name, and those of notebooks 03 to 05."""


def find(name_or_path: str | Path) -> Recipe:
    """Finds a recipe: one of `RECIPES` by name, or a JSON file.

    Args:
        name_or_path: The name or the file.

    Raises:
        FileNotFoundError: If it is neither.
        ValueError: If the file is no recipe.

    Example:
        >>> find("tiny").teachers
        ('compact',)
    """
    if str(name_or_path) in RECIPES:
        return RECIPES[str(name_or_path)]
    if not Path(name_or_path).is_file():
        raise FileNotFoundError(
            f"There is no recipe and no file {str(name_or_path)!r}: give a JSON file or one of "
            f"{', '.join(RECIPES)}."
        )
    return Recipe.from_json(name_or_path)
