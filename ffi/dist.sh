#!/usr/bin/env bash
# Packs what a C or C++ program needs into pentimento-VERSION-TARGET.tar.gz and prints where it is.
# Usage: ffi/dist.sh [--out FOLDER] [--target TRIPLE] [--profile PROFILE] [--libraries FOLDER]
#   --out        where the archive goes; target/package without it
#   --target     another than this machine's: a rustc target with its linker; CC, LD, AR, OBJCOPY are its tools
#   --profile    cargo's; `dist` without it
#   --libraries  packs the libraries that lie there and builds nothing
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "ffi/dist.sh: $*" >&2; exit 1; }

out=target/package profile=dist target="" libraries=""
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail "$1 needs a value; the head of the script says which there are"
    case $1 in
        --out) out=$2 ;;
        --profile) profile=$2 ;;
        --target) target=$2 ;;
        --libraries) libraries=$2 ;;
        *) fail "no option is called $1; the head of the script says which there are" ;;
    esac
    shift 2
done

# One place each says what these are.
field() { sed -n "s/^$2 = \"\\(.*\\)\"\$/\\1/p" "$1" | head -n 1; }
version=$(field Cargo.toml version)
description=$(field ffi/Cargo.toml description)
url=$(field Cargo.toml repository)
binary=$(sed -n '/^\[package.metadata.capi.library\]/,$p' ffi/Cargo.toml | sed -n 's/^version = "\(.*\)"$/\1/p' | head -n 1)
abi=$(sed -n 's/^#define PMT_ABI_VERSION \([0-9]*\)$/\1/p' include/pentimento.h)
[ "${binary%%.*}" = "$abi" ] || fail "ffi/Cargo.toml names the library's version $binary, which must begin with PMT_ABI_VERSION, $abi"
host=$(rustc -vV | sed -n 's/^host: //p')
name="pentimento-$version-${target:-$host}"

if [ -z "$libraries" ]; then
    # Nobody is told where this was built.
    export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=pentimento"
    cargo build --profile "$profile" -p pentimento-ffi ${target:+--target "$target"} >&2
    libraries=${CARGO_TARGET_DIR:-target}/${target:+$target/}$profile
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root"/{include,lib/pkgconfig,lib/cmake/pentimento,examples}

# ELF: one object of all that the functions need, in which no other name is seen; both libraries are made of it. So a
# program may link two libraries that were written in Rust.
elf() {
    local names shared=libpentimento.so roots=()
    names=$(grep -oE '\bpmt_[a-z0-9_]+\(' include/pentimento.h | tr -d '(' | sort -u)
    for each in $names; do roots+=(-u "$each"); done
    "${LD:-ld}" -r --gc-sections "${roots[@]}" -o "$work/pentimento.o" "$libraries/libpentimento.a"
    "${OBJCOPY:-objcopy}" --wildcard --keep-global-symbol='pmt_*' --strip-unneeded -R .llvmbc -R .llvmcmd "$work/pentimento.o"
    "${AR:-ar}" rcsD "$root/lib/libpentimento.a" "$work/pentimento.o"
    # shellcheck disable=SC2086 # a list of flags
    "${CC:-cc}" -shared "-Wl,-soname,$shared.$abi" -Wl,-z,relro,-z,now,-z,noexecstack,-O1,--gc-sections,--as-needed,-s \
        -o "$root/lib/$shared.$binary" "$work/pentimento.o" $system
    ln -s "$shared.$binary" "$root/lib/$shared.$abi"
    ln -s "$shared.$abi" "$root/lib/$shared"
}
system_of() { sed -n "s/^$1 //p" ffi/cmake/system-libraries.txt; }
case ${target:-$host} in
    *windows*)
        system=$(system_of windows)
        mkdir "$root/bin"
        cp "$libraries"/pentimento.dll "$root/bin/"
        cp "$libraries"/pentimento.dll.lib "$libraries"/pentimento.lib "$root/lib/"
        ;;
    *apple*)
        system=$(system_of apple)
        cp "$libraries"/libpentimento.a "$root/lib/"
        cp "$libraries"/libpentimento.dylib "$root/lib/libpentimento.$abi.dylib"
        install_name_tool -id "@rpath/libpentimento.$abi.dylib" "$root/lib/libpentimento.$abi.dylib"
        ln -s "libpentimento.$abi.dylib" "$root/lib/libpentimento.dylib"
        ;;
    *)
        system=$(system_of linux)
        elf
        ;;
esac

case ${target:-$host} in x86_64* | aarch64* | riscv64*) pointer=8 ;; *) pointer=4 ;; esac
fill() { # file: with the values in their places
    sed -e "s|@VERSION@|$version|g" -e "s|@ABI@|$abi|g" -e "s|@DESCRIPTION@|$description|g" -e "s|@URL@|$url|g" \
        -e "s|@TARGET@|${target:-$host}|g" -e "s|@POINTER@|$pointer|g" -e "s|@SYSTEM@|$system|g" \
        -e "s|@LINUX@|$(system_of linux)|g" -e "s|@APPLE@|$(system_of apple)|g" -e "s|@WINDOWS@|$(system_of windows)|g" "$1"
}
cp include/* "$root/include/"
cp ffi/cmake/pentimento-config.cmake ffi/cmake/pentimento-targets.cmake ffi/cmake/system-libraries.txt "$root/lib/cmake/pentimento/"
fill ffi/cmake/pentimento-config-version.cmake.in >"$root/lib/cmake/pentimento/pentimento-config-version.cmake"
fill ffi/dist/pentimento.pc.in >"$root/lib/pkgconfig/pentimento.pc"
fill ffi/dist/README.md.in >"$root/README.md"
find examples -maxdepth 1 \( -name '*.c' -o -name '*.cpp' \) -exec cp {} "$root/examples/" \;
cp ffi/dist/examples.cmake "$root/examples/CMakeLists.txt"
cp LICENSE-APACHE LICENSE-MIT "$root/"

# What others wrote: the list, then each text once, after the packages that carry it.
packages() {
    cargo tree --locked -p pentimento-ffi -e normal --target "${target:-$host}" --prefix none --format '{p}|{l}' \
        | grep -v '(/' | sed -e 's/ (\*)//' -e 's/ (proc-macro)//' | sort -u
}
packages >"$work/packages"
{
    echo "The libraries contain the Rust standard library (MIT OR Apache-2.0) and these packages:"
    echo
    while IFS='|' read -r package licence; do printf '%-40s %s\n' "$package" "$licence"; done <"$work/packages"
} >"$root/THIRD-PARTY.txt"
mkdir "$work/texts"
while IFS='|' read -r package _; do
    folder=${package/ v/-}
    find "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$folder" -maxdepth 1 -type f \
        \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'unlicense*' \) 2>/dev/null | sort | while read -r text; do
        sum=$(cksum <"$text" | tr ' ' -)
        [ -e "$work/texts/$sum" ] || cp "$text" "$work/texts/$sum"
        echo "$package" >>"$work/texts/$sum.of"
    done
done <"$work/packages"
find "$work/texts" -name '*.of' | sort | while read -r of; do
    printf '\n================ %s\n\n' "$(sort -u "$of" | paste -s -d , - | sed 's/,/, /g')"
    cat "${of%.of}"
done >>"$root/THIRD-PARTY.txt"

# The same bytes for the same files.
mkdir -p "$out"
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
same=()
if tar --version | grep -q GNU; then same=(--sort=name --owner=0 --group=0 --numeric-owner --mtime="@$date"); fi
tar "${same[@]}" -C "$work" -cf "$work/$name.tar" "$name"
gzip -9n "$work/$name.tar"
mv "$work/$name.tar.gz" "$out/"
echo "$out/$name.tar.gz"
