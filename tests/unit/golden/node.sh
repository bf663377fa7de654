export CUDA_VISIBLE_DEVICES=0
export EMPTY=''
export PATH=/opt/bin:/bin
export WORDS='it'"'"'s $(touch pwned) `touch pwned` "q"
export X=1 \ é ${HOME} * ~ &'
case $1 in
0) export CUDA_VISIBLE_DEVICES=0 ;;
1) export CUDA_VISIBLE_DEVICES=1,3 ;;
esac
cd '/work/it'"'"'s' || exit 1
/usr/bin/python3 '/lib/$x.py' "$1" 0 </dev/null &
/usr/bin/python3 '/lib/$x.py' "$1" 1 </dev/null &
wait
