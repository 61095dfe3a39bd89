#!/bin/sh
# Downloads public data sets from their official sites and unpacks them where the recipes expect them.
set -eu

usage() {
    cat <<'TEXT'
usage: scripts/fetch_data.sh NAME… [--to DIR] [--keep]

  cifar10            CIFAR-10, binary version (170 MB)        -> DIR/cifar-10-batches-bin
  cifar100           CIFAR-100, binary version (169 MB)       -> DIR/cifar-100-binary
  imagenette         10 easy classes of ImageNet, full size   -> DIR/imagenette2
  imagenette-320     Imagenette, shorter side 320             -> DIR/imagenette2-320
  imagenette-160     Imagenette, shorter side 160             -> DIR/imagenette2-160
  imagenet           prints how to get and place ImageNet itself

  --to DIR    where to unpack (default: data)
  --keep      keep the archive after unpacking

The same command resumes an interrupted download. Archives are checked (MD5) before they are unpacked, and a data set
gets its final name when it is complete. Existing data sets are not downloaded again.
MBCONV_DATA_URL=http://… downloads the archives from a mirror, by their file names; curl's proxy variables apply.
TEXT
}

imagenet() {
    cat <<'TEXT'
ImageNet (ILSVRC2012) may not be redistributed. Register at https://image-net.org, accept its terms and download
  ILSVRC2012_img_train.tar      138 GB    MD5 1d675b47d978889d74fa0da5fadfb00e
  ILSVRC2012_img_val.tar        6.3 GB    MD5 29b22e2961454d5413ddabcf34fc5622
  ILSVRC2012_devkit_t12.tar.gz  2.5 MB    MD5 fa75699e90414af021442c21a62c3abf
into one folder, data/imagenet, without unpacking. Then check the files:
  mbconv data inspect data/imagenet      # 1,281,167 training and 50,000 validation images of 1000 classes
  mbconv data verify data/imagenet
  mbconv data pack data/imagenet data/imagenet-wds --format wds --size 256     # smaller, and faster to read
TEXT
}

fail() {
    echo "error: $1" >&2
    exit 1
}

# NAME -> archive, folder in the archive, MD5, official site
describe() {
    case $1 in
    cifar10) set -- cifar-10-binary.tar.gz cifar-10-batches-bin c32a1d4ab5d03f1284b67883e8d87530 https://www.cs.toronto.edu/~kriz ;;
    cifar100) set -- cifar-100-binary.tar.gz cifar-100-binary 03b5dce01913d631647c71ecec9e9cb8 https://www.cs.toronto.edu/~kriz ;;
    imagenette) set -- imagenette2.tgz imagenette2 fe2fc210e6bb7c5664d602c3cd71e612 https://s3.amazonaws.com/fast-ai-imageclas ;;
    imagenette-320) set -- imagenette2-320.tgz imagenette2-320 3df6f0d01a2c9592104656642f5e78a3 https://s3.amazonaws.com/fast-ai-imageclas ;;
    imagenette-160) set -- imagenette2-160.tgz imagenette2-160 e793b78cc4c9e9a4ccc0c1155377a412 https://s3.amazonaws.com/fast-ai-imageclas ;;
    *) return 1 ;;
    esac
    archive=$1 folder=$2 md5=$3 url=${MBCONV_DATA_URL:-$4}/$1
}

md5_of() {
    if command -v md5sum >/dev/null; then
        md5sum "$1" | cut -d ' ' -f 1
    elif command -v md5 >/dev/null; then
        md5 -q "$1"
    else
        fail "cannot check $1: neither md5sum nor md5 is installed"
    fi
}

whole() {
    [ -f "$1" ] && [ "$(md5_of "$1")" = "$md5" ]
}

# Downloads $url to the file $1 and resumes a partial download.
fetch() {
    partial=$1.partial
    # Complete but not yet renamed: servers reject a request beyond the end.
    whole "$partial" && mv "$partial" "$1" && return
    status=0
    answer=$(curl --fail --location --retry 3 --continue-at - --output "$partial" --write-out '%{http_code}' "$url") || status=$?
    # The server cannot resume (33), or the partial file is too long (416).
    if [ $status -eq 33 ] || [ "$answer" = 416 ]; then
        echo "starting $url again" >&2
        status=0
        rm -f "$partial"
        curl --fail --location --retry 3 --output "$partial" "$url" || status=$?
    fi
    [ $status -eq 0 ] || fail "cannot fetch $url (curl ended with $status); the same command goes on where it stopped"
    found=$(md5_of "$partial")
    if [ "$found" != "$md5" ]; then
        rm -f "$partial"
        fail "$url has the MD5 $found, but $md5 is expected; the file was removed, try again"
    fi
    mv "$partial" "$1"
}

get() {
    describe "$1"
    if [ -d "$to/$folder" ]; then
        echo "$to/$folder is there already"
        return
    fi
    mkdir -p "$to"
    file=$to/$archive
    whole "$file" || fetch "$file"
    unpacking=$to/.$folder.unpacking
    rm -rf "$unpacking"
    mkdir "$unpacking"
    tar -xzf "$file" -C "$unpacking" || fail "cannot unpack $file into $to (is the disk full?)"
    [ -d "$unpacking/$folder" ] || fail "$file does not contain the folder $folder"
    mv "$unpacking/$folder" "$to/$folder"
    rm -rf "$unpacking"
    [ "$keep" = yes ] || rm -f "$file"
    echo "$to/$folder is ready: mbconv data inspect $to/$folder"
}

to=data
keep=no
names=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --keep) keep=yes ;;
    --to)
        [ $# -gt 1 ] || fail "--to needs a folder"
        shift
        to=$1
        ;;
    imagenet) names="$names $1" ;;
    *)
        describe "$1" || { usage >&2 && fail "unknown data set: $1"; }
        names="$names $1"
        ;;
    esac
    shift
done
[ -n "$names" ] || { usage >&2 && exit 1; }
command -v curl >/dev/null || fail "curl is not installed"
for name in $names; do
    if [ "$name" = imagenet ]; then imagenet; else get "$name"; fi
done
