# Sourced as `source activate ENV` by the shell commands of Snakemake's jobs. Starts no program for
# an env that hpcburst made; for others their activation is found out once, and then replayed.
case $1 in
    */*) hpcburst_env=$1 ;;
    *) hpcburst_env=$(cd -P @FOLDER@/envs/"$1" 2>/dev/null && pwd) || hpcburst_env=$1 ;;
esac
if [ -r "$hpcburst_env/conda-meta/hpcburst-activate.sh" ]; then
    . "$hpcburst_env/conda-meta/hpcburst-activate.sh"
elif hpcburst_changes=$(@PYTHON@ -P -m hpcburst.envs.conda_standin activation \
    --keep @FOLDER@/activations --prefix "$hpcburst_env"); then
    eval "$hpcburst_changes"
else # what follows in a rule must not run in another env than its own
    case $- in *i*) return 1 ;; *) exit 1 ;; esac
fi
unset hpcburst_env hpcburst_changes
