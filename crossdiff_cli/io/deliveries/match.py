"""Which PAN and which MS of a delivery belong together, and in which words a delivery is refused."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product
from crossdiff_cli.system.paths import is_file

_APART = timedelta(seconds=5)
"""PAN and MS of one acquisition are taken within this time; the next view of a stereo triplet comes later."""


def one_acquisition(pan: Product, ms: Product) -> bool:
    """Whether nothing that is known of the two images tells them apart: identity, else time."""
    if (pan.vendor, pan.part) != (ms.vendor, ms.part) or (pan.sensor and ms.sensor and pan.sensor != ms.sensor):
        return False
    if pan.identity and ms.identity:
        return pan.identity == ms.identity
    if pan.acquired and ms.acquired:
        return abs(pan.acquired - ms.acquired) <= _APART
    return True


def sure_pairs(products: Sequence[Product]) -> list[tuple[Product, Product]]:
    """PAN and MS without faults of which each fits no other."""
    every = _pairs(products)
    return [
        (pan, ms)
        for pan, ms in every
        if sum(p is pan for p, _ in every) == 1 and sum(m is ms for _, m in every) == 1 and not (pan.fault or ms.fault)
    ]


def choose_pair(products: Sequence[Product], where: Path) -> tuple[Product, Product]:
    """Return the one PAN and MS of a delivery; `where` is the folder, or a file that must belong to the pair.

    Raises:
        SceneError: PAN or MS is missing, damaged or pansharpened, they are of two acquisitions, or there are several.
    """
    whole = not is_file(where)
    pairs = [(pan, ms) for pan, ms in _pairs(products) if whole or where in pan.files | ms.files]
    if len(pairs) == 1:
        pan, ms = pairs[0]
        for product in (pan, ms):
            if product.fault:
                raise SceneError(product.fault)
        return pan, ms
    if pairs:
        shown = "; ".join(f"{pan.document.name} with {ms.document.name}" for pan, ms in pairs[:4])
        raise SceneError(
            "it holds several pairs of PAN and MS",
            path=where,
            found=f"{len(pairs)}: {shown}{'; ...' if len(pairs) > 4 else ''}",
            cure="name the metadata file of the one you want, or its PAN and MS files",
        )
    own = [product for product in products if whole or where in product.files] or list(products)
    raise _why_none(own if whole else list(products), own, where)


def choose_one(products: Sequence[Product], kind: Kind, where: Path) -> Product:
    """Return the one image of that kind.

    Raises:
        SceneError: there is none, or several, or it is damaged or pansharpened.
    """
    own = [product for product in products if not is_file(where) or where in product.files]
    of_kind = [product for product in own if product.kind is kind]
    if len(of_kind) > 1:
        names = ", ".join(str(product) for product in of_kind[:4])
        raise SceneError(
            f"it holds several {kind.value} images", path=where, found=f"{len(of_kind)}: {names}", cure="name one"
        )
    if not of_kind:
        for product in own:
            if product.fault:
                raise SceneError(product.fault)
            if product.kind is Kind.SHARPENED and kind is Kind.MS:
                raise _sharpened(product)
        names = ", ".join(f"{product} ({product.kind.value})" for product in own[:4])
        raise SceneError(
            f"it holds no {kind.value} image", path=where, found=names, cure="check whether PAN and MS are swapped"
        )
    if of_kind[0].fault:
        raise SceneError(of_kind[0].fault)
    return of_kind[0]


def _pairs(products: Sequence[Product]) -> list[tuple[Product, Product]]:
    pans, mss = ([p for p in products if p.kind is kind] for kind in (Kind.PAN, Kind.MS))
    return [(pan, ms) for pan in pans for ms in mss if one_acquisition(pan, ms)]


def _why_none(products: Sequence[Product], own: Sequence[Product], where: Path) -> SceneError:
    for product in (*own, *products):
        if product.fault:
            return SceneError(product.fault)
    pans, mss, sharpened = ([p for p in products if p.kind is k] for k in (Kind.PAN, Kind.MS, Kind.SHARPENED))
    if pans and mss:
        return SceneError(
            f"the PAN {pans[0]} and the MS {mss[0]} are two acquisitions, between which the ground changes",
            path=where,
            cure="give a PAN and an MS of one time, or name the two files to sharpen them all the same",
        )
    if sharpened and not mss:
        return _sharpened(sharpened[0])
    if pans:
        return SceneError(
            "it holds a PAN but no multispectral image", path=where, found=pans[0], cure="name the MS after it"
        )
    if mss:
        more = "; Level-2 products have no band 8: Level-1 has" if mss[0].vendor == "Landsat" else ""
        return SceneError(
            "it holds a multispectral image but no PAN", path=where, found=mss[0], cure=f"name the PAN before it{more}"
        )
    return SceneError("it holds neither a PAN nor a multispectral image", path=where)


def _sharpened(product: Product) -> SceneError:
    return SceneError(
        "it is already pansharpened", path=product.document, cure="give the original PAN and multispectral files"
    )
